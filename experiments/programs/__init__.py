"""Child programs: started, watched, stopped and resumed, each done once."""
