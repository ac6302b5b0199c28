//! Pushgateway requests: what they ask of the store and what is answered, free of any HTTP library.
