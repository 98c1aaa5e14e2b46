"""Servers that tests use, one file each: started on a free port of 127.0.0.1, ended by process id."""
