"""Preferences from people through Label Studio, and the labelled stand-in by rule."""
