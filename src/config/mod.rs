//! The configuration toolkit: values with places, problems, loading. It knows no policy.
