"""Who may ask: users and certificates of web-config.yml, API tokens, sessions of browsers. Knows nothing of HTTP."""
