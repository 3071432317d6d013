"""Scripts that people can run beside the command line, and the measurements of the project."""
