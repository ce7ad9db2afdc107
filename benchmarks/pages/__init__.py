"""Tables, charts and the HTML page of results."""
