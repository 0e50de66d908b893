"""Things by the names users give them: strategies and their fields, plug-in files, checkpoints."""
