"""Files, processes, HTTP and text: nothing here knows what a run is."""
