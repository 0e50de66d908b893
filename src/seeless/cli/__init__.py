"""The command line: one file per verb, built on the public names of seeless."""
