"use strict";
// The clipboard is closed to pages from a file; there the text is selected, to be copied by hand.
async function copy_text(element, button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(element.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(element);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = said; }, 2000);
}
