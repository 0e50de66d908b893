"""Which method and budget for what: rules, published figures and times measured here, each with its source."""
