"""Rendered stand-ins for the training sources beside DeepFashion2, each in its published layout."""

from harness.data.rendered.layouts.rendering import LAYOUTS, LayoutSettings, render_layout

__all__ = ["LAYOUTS", "LayoutSettings", "render_layout"]
