"use strict";
const box = document.getElementById("swagger");
SwaggerUIBundle({ url: box.dataset.url, domNode: box, deepLinking: true, docExpansion: "none", validatorUrl: null });
