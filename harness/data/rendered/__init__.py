"""A rendered stand-in for DeepFashion2: same folders, same annotations, drawn garments."""

from harness.data.rendered.dataset import render
from harness.data.rendered.plan import RenderSettings

__all__ = ["RenderSettings", "render"]
