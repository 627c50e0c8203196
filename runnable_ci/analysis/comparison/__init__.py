"""Two runs compared: what differs between them, and which difference explains the others."""
