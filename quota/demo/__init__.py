"""The demo: one week of a video app on an embedded database, and its report."""
