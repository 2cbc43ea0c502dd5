// One incident in a file of its own: the data is in the document, nothing is fetched.
"use strict";
PW.showIncident(document.getElementById("main"), JSON.parse(document.getElementById("data").textContent), null);
