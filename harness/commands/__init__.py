"""The command line, a module a group of commands: each parses, calls one function, prints."""
