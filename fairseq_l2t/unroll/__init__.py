"""T updates of a student and the exact sweep back through them."""
