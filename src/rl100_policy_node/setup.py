"""Build script of the ROS 2 package ``rl100_policy_node``."""

from setuptools import find_packages, setup

PACKAGE = "rl100_policy_node"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "onnx", "onnxruntime"],
    zip_safe=False,
    author="rl100 maintainers",
    author_email="maintainers@rl100.example.com",
    maintainer="rl100 maintainers",
    maintainer_email="maintainers@rl100.example.com",
    description="Runs a policy bundle with ONNX Runtime and publishes action chunks.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "policy = rl100_policy_node.main:main",
        ],
    },
)
