"""Whether what a family says is true: a tiny model of any config, and a mask oracle that knows nothing of the core."""
