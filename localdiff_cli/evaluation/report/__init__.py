"""What people and programs read: the HTML page, tables and the JSON document of an evaluation."""
