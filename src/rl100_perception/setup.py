from setuptools import find_packages, setup

package_name = "rl100_perception"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="rl100 maintainers",
    maintainer_email="maintainers@rl100.example.com",
    description="Depth images to the point cloud that the policy sees.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["perception = rl100_perception.main:main"]},
)
