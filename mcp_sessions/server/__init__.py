"""The MCP server: the tools and sessions of this package as MCP clients see them."""
