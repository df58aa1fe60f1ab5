"""What the command line offers besides training, a file a command."""
