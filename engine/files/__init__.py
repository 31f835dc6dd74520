"""Folders that messages are read from and written to: on this machine, and on SFTP servers."""
