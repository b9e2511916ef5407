from setuptools import find_packages, setup

package_name = "rl100_contracts"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["py.typed", "tasks/*.yaml", "tasks/*.urdf"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="rl100 maintainers",
    maintainer_email="maintainers@rl100.example.com",
    description="Task, episode and bundle contracts of rl100.",
    license="Apache-2.0",
)
