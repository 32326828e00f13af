"""A whole preset in one process, in pieces of limited time: what the workflow does, without it."""
