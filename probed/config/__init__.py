"""Configuration: strict YAML with line numbers -> frozen settings."""
