"""Measures of images that need no CVAE: stroke attributes, a reference classifier, and fidelity to the condition."""
