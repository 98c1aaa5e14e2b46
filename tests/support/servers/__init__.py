"""Real servers, one file each: started on free ports of 127.0.0.1, in a folder of its own, ended by process id."""
