from glob import glob

from setuptools import find_packages, setup

package_name = "rl100_control"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/examples", sorted(glob("examples/*"))),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="rl100 maintainers",
    maintainer_email="maintainers@rl100.example.com",
    description="The command gateway: the only publisher of robot commands.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["gateway = rl100_control.main:main"]},
)
