"""The one place that knows what lies in a run's folder: how it is written, and how it is read."""
