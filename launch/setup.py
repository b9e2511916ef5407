from glob import glob

from setuptools import find_packages, setup

package_name = "rl100"

# Folder in share/rl100 -> files; an empty or absent folder is no error.
shared = {
    "launch": glob("*.launch.py") + glob("launch/*.launch.py"),
    "params": glob("params/*.yaml"),
    "rviz": glob("rviz/*"),
    "foxglove": glob("foxglove/*"),
    "dds": glob("dds/*"),
}

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(include=[package_name, f"{package_name}.*"]),
    package_data={package_name: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        *((f"share/{package_name}/{folder}", files) for folder, files in shared.items() if files),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="rl100 maintainers",
    maintainer_email="maintainers@rl100.example.com",
    description="The rl100 command, launch files and systems.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["rl100 = rl100.cli:main"]},
)
