"""The HTTP service: routes, authentication and the dashboard."""
