"""Below HTTP: the pace of a connection, TLS, and what is said while a server is waited for."""
