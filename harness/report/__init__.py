"""From run folders to tidy frames, and from frames to claims, tables, figures and a page."""
