from setuptools import Extension, setup

# Newer ones of setuptools would read it from pyproject.toml.
setup(ext_modules=[Extension("mandelbrot", ["mandelbrot.pyx"])])
