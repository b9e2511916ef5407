from setuptools import find_packages, setup

package_name = "rl100_trainer"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["py.typed", "presets/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="rl100 maintainers",
    maintainer_email="maintainers@rl100.example.com",
    description="Trains diffusion policies and their one-step students from recorded episodes.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "train = rl100_trainer.cli:main",
            "trainer_node = rl100_trainer.node:main",
        ],
    },
)
