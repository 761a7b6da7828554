// Runs before the page is drawn: sets the scheme that the visitor chose.
(() => {
  try {
    const scheme = localStorage.getItem("redstart-scheme");
    if (scheme) document.documentElement.dataset.scheme = scheme;
  } catch {
    // Storage is off: the page follows the system.
  }
})();
