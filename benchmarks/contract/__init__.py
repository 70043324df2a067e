"""Does the service do what its OpenAPI document says? Thousands of generated requests find out."""
