"""The command line, one file a command or family: read the words, call a room, print.

May import everything; nothing imports a command. What is heavy is imported inside the function that needs it.
Start reading at `families` (what commands there are), then `main`.
"""
