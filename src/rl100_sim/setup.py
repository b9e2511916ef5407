"""Build script of the ROS 2 package ``rl100_sim``."""

from setuptools import find_packages, setup

PACKAGE = "rl100_sim"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "mujoco>=3.3,<5"],
    zip_safe=False,
    author="rl100 maintainers",
    author_email="maintainers@rl100.example.com",
    maintainer="rl100 maintainers",
    maintainer_email="maintainers@rl100.example.com",
    description="A MuJoCo robot behind the topics of a real one.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "sim = rl100_sim.sim_node:main",
            "scripted_teleop = rl100_sim.scripted_teleop_node:main",
            "scripted_labeller = rl100_sim.scripted_labeller_node:main",
        ],
    },
)
