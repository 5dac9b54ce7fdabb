"""What is seen from outside: the log, the board of a running server, word that it serves."""
