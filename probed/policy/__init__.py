"""Event policies: YAML files -> ``model.Policy``, and the worked examples that prove them."""
