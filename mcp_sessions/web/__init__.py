"""HTTP before MCP: who may connect, how much may come, how long it may take. Users and their tokens belong here too."""
