"""Packaging metadata and dependencies; tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PACKAGE = (ROOT / "depthbal" / "__init__.py").read_text(encoding="utf-8")

# What has an upper bound or a pin is explained in docs/install.md, for those who meet a conflict.
INSTALL_REQUIRES = [
    "torch>=2.11,<2.15",  # 2.11 runs on our GPU machines, 2.14 is the newest tested
    "torchvision>=0.26,<0.30",  # the releases that pair with torch 2.11 to 2.14
    "numpy>=2.0",  # the first release whose wheels cover Python 3.11 and 3.12 with the 2.x API
    "scikit-learn>=1.5",  # GaussianMixture; 1.5 is the first built against NumPy 2
    "scipy>=1.14",  # Student's t of the reports' intervals; 1.14 is the oldest that was tried
    "torchmetrics>=1.6",  # Metric with set_dtype and weights_only-safe states
    "pytorch-lightning>=2.5.2,<3,!=2.6.2,!=2.6.3",  # 2.6.2 and 2.6.3 were compromised releases
    "jsonargparse[signatures]>=4.40,<5",  # 5 changes the LightningCLI parser interface
    "segmentation-models-pytorch>=0.5,<0.7",  # 0.5 is the first without pretrainedmodels
    "timm>=1.0",  # smp 0.5 asks for 0.9; 1.0 is the oldest that was tried (tu- encoders)
    "huggingface-hub>=0.24",  # its errors tell a failed download from a wrong name
    "safetensors>=0.4",  # weights in .safetensors; 0.4.0 is the oldest that was tried
    "albumentations==2.0.8",  # the last release under MIT; its successor is AGPL
    "opencv-python-headless>=4.9,<5",  # albumentations 2.0.8 was never tested with OpenCV 5
    "h5py>=3.11",  # packed data sets; the first built against NumPy 2
    "PyYAML>=6.0",  # configs and their bases; 6.0 has wheels for 3.11, 5.4 does not
    "platformdirs>=4.0",  # user_cache_path; 4.0.0 is the oldest that was tried
    "rich>=13.7",  # tables and progress bars; 13.7.0 is the oldest that was tried
    "matplotlib>=3.9",  # first built against NumPy 2
    "plotly>=7.0",  # brings the plotly.js 4 that reports embed; older ones were not tried
    "jinja2>=3.1",  # the reports' templates
    "roma>=1.5",  # rotations; 1.5 is the oldest that was tried
]
DOCS = [
    "mkdocs>=1.6,<2",  # File.generated; mkdocs-material 9 wants below 2
    "mkdocs-material>=9.6",
    "mkdocstrings[python]>=1.0",
    "mkdocs-jupyter>=0.25",
    "latex2mathml>=3.77",  # formulas of notebooks, without a script
]
EXTRAS_REQUIRE = {
    "docs": DOCS,
    "test": [
        *DOCS,  # the site is built, and its pages are opened
        "pytest>=8.2",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",  # a test process per CPU
        "setuptools>=77",  # a test builds the wheel
        "hypothesis>=6.100",
        "ruff>=0.14",
        "mypy>=1.13",
        "selenium>=4.30",  # drives the browser that opens reports
        "onnx>=1.18",  # exports are opened and run
        "onnxruntime>=1.20",
        "onnxscript>=0.5",
        "transformers>=5.24",
        "peft>=0.21",
        "OpenEXR>=3.3",
        "scikit-image>=0.22",  # its Middlebury pair is a real picture with real depth
        "gradio>=6.31",  # the demo is asked over HTTP
        "nbclient>=0.11",  # runs the notebooks; older ones were not tried
        "ipykernel>=7",  # likewise
    ],
    "demo": ["gradio>=6.31"],  # depthbal demo; the oldest that was tried
    "exr": ["OpenEXR>=3.3"],  # depth in channels that OpenCV does not know; 3.3 has OpenEXR.File
    "tensorboard": ["tensorboard>=2.17"],  # --trainer.logger TensorBoardLogger; 2.17 takes NumPy 2
    "export": ["onnx>=1.18", "onnxruntime>=1.20", "onnxscript>=0.5"],  # --format onnx
    "hf": [  # HFDepth and LoRA
        "transformers>=5.24",  # the oldest that was tried; 4 has other names for attention's layers
        "peft>=0.21",  # the oldest that was tried
    ],
    "smpl": ["smplx>=0.1.28"],  # a test compares with it; its licence is non-commercial research
}

setup(
    name="depthbal",
    version=re.findall(r'^__version__ = "(.+)"$', PACKAGE, re.MULTILINE)[0],
    description="Monocular depth estimation that is accurate where training data are rare",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    keywords="imbalanced regression, balanced MSE, depth estimation, long-tailed, PyTorch",
    project_urls={"Paper": "https://arxiv.org/abs/2203.16427"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.13",
    package_dir={"": "."},  # a plain path: a folder named depthbal must not hide the package
    packages=find_packages(include=["depthbal", "depthbal.*"]),
    package_data={
        "depthbal": ["py.typed", "configs/*/*.yaml", "configs/*/*/*.yaml"],
        "depthbal.reports": ["assets/*/*"],
    },
    entry_points={"console_scripts": ["depthbal = depthbal.commands:main"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
