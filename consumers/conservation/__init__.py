"""Conservation of frames: each published frame is recorded, refused, shed or pending."""
