"""The page in the browser: static files, and the route with what the page needs to know of the service."""
