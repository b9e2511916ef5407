from setuptools import find_packages, setup

package_name = "rl100_teleop"

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
    description="Teleoperation by keyboard and joystick, and the episode recorder.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "recorder = rl100_teleop.recorder.main:main",
            "teleop_keyboard = rl100_teleop.main:keyboard",
            "teleop_joy = rl100_teleop.main:joy",
        ],
    },
)
