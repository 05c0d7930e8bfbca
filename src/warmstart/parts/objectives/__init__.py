"""How a body learns before there is a task; one file is one objective."""
