"""The commands: options → settings → library → exit code."""
